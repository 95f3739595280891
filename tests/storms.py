"""What a storm does to requests, beside throttling them."""

from lakehouse_pipeline.testing.schedule import Effect, Fault

OF_S3 = (
    Fault(effect=Effect.INTERNAL_ERROR, probability=0.01, times=None),
    Fault(effect=Effect.INTERNAL_ERROR, probability=0.01, times=None, landed=True),
    Fault(effect=Effect.RESET, probability=0.005, times=None),
    Fault(effect=Effect.RESET, probability=0.005, times=None, landed=True),
    Fault(effect=Effect.SILENCE, probability=0.002, times=None, landed=True),
)
