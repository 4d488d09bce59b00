"""Models that see: how the tensors of their language model are named, and those that are left out."""

PREFIXES = (("language_model.model.", "model."), ("model.language_model.", "model."), ("language_model.", ""))
NOTE = "the model sees or hears besides: the file is the language model alone"
PARTS = dict.fromkeys(
    ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.", "model.visual."),
    NOTE,
)
