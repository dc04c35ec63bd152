"""The alignment map on a real pretrained model: sums that may be solved in any order."""
