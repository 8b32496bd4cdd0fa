"""One command on many processes or machines: workers that take work as it is dealt out, and outlive each other.

::

    driver                              workers (processes here, actors on Ray, jobs on Slurm)
    deal(pool, tasks) ── Parcel ──>     make(settings) once, then one task after the other
          done(task, result) <── Parcel ──

What a worker does is a callable from `Parcel` to `Parcel` that `Job.make` names; nothing here knows what it computes.
Only the driver writes results, so that a worker may end at any moment.
"""
