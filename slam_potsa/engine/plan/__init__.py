"""What a training would need, counted before anything is downloaded or rented: `plan.plan_stages`.

    stages, or one configuration
      meta.py          every model at its true size on torch's meta device, from shipped sizes
      corpus.py        the manifest's numbers where it is here, stated assumptions where it is not
      count.py         FLOPs and bytes of a training step that is run without data
      stage.py         a stage's figures: memory by what holds it, hours by a GPU's peak figures
      machines.py      one configuration on several machines, and the command
      report.py        as text

No weight is read and no hub is asked. Nothing is imported here: the command line reads
`assumptions.py` for its options, and must not wait for torch.
"""
