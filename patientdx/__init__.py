"""PatientDx: merge public language models to predict from patient records, without a gradient on a patient."""

__version__ = "0.2.0"
