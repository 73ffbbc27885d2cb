"""What a training would need, counted before anything is downloaded or rented: `plan.plan_stages`.

    stages, or one configuration
      parts.py       every model at its true size on torch's meta device, from shipped sizes
      corpus.py      the manifest's numbers where it is here, stated assumptions where it is not
      flops.py       operations, by formula; memory.py: bytes, by formula; budget.py: a stage's
      hardware.py    what that means on a GPU, by its maker's peak figures
      report.py      as text, and as a dict for JSON

No weight is read and no hub is asked. Nothing is imported here: the command line reads
`assumptions.py` for its options, and must not wait for torch.
"""
