"""Rewriting a model, once after import: graphs to differentiate cut out, duplicates merged, exporters' spellings made
composite ops, string labels taken apart from classifiers, operators between dequantizing and quantizing made operators
on integers, batch normalisation put into convolutions, dead code removed.

Composite ops are of the domain ``omniop`` (schemas: `omniop.opset.schemas`); kernels and lowerings know them as they
know any op, and no other part of omniop looks for patterns.
"""

from __future__ import annotations

from omniop.opset import contrib
from omniop.opset.importer import ImportedModel
from omniop.opset.rewrite import gelu, layer_normalization
from omniop.opset.rewrite.batch_normalization import fold_batch_normalization
from omniop.opset.rewrite.clean import merge_duplicates, remove_unused
from omniop.opset.rewrite.gradients import cut_out_gradients
from omniop.opset.rewrite.quantized import fold_quantized
from omniop.opset.rewrite.rule import Applied, apply_rules, import_composites, replaced_names
from omniop.opset.rewrite.string_labels import take_strings_apart

__all__ = ["Applied", "replaced_names", "rewrite"]

RULES = (*layer_normalization.RULES, *gelu.RULES)


def rewrite(model: ImportedModel) -> list[Applied]:
    """Rewrite a model in place, its subgraphs and functions included; returns what was done, in order.

    Inputs and outputs of the model keep their names and order. Nodes stay in topological order.
    """
    applied = list(cut_out_gradients(model.graph))
    applied += merge_duplicates(model.model)
    for root in (model.graph, *(f.graph for f in model.functions.values())):
        found = [a for graph in (root, *root.subgraphs()) for a in apply_rules(graph, RULES)]
        found += [a for graph in (root, *root.subgraphs()) for a in fold_batch_normalization(graph)]
        if found:
            import_composites(root)
        applied += found
        applied += [a for graph in (root, *root.subgraphs()) for a in take_strings_apart(graph)]
        integers = [a for graph in (root, *root.subgraphs()) for a in fold_quantized(graph)]
        if integers:
            root.opset_imports.setdefault(contrib.DOMAIN, 1)
        applied += integers
    applied += remove_unused(model.model)
    return applied
