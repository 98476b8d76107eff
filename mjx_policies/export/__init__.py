"""Export of a trained policy to one ONNX file."""

from mjx_policies.export.onnx_file import Exported, export_policy, require_packages
from mjx_policies.export.tables import Provenance, describe

__all__ = ["Exported", "Provenance", "describe", "export_policy", "require_packages"]
