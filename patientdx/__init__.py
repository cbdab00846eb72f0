"""PatientDx: merge public language models so that they predict from patient records, without a gradient on a patient."""

__version__ = "0.1.0"
