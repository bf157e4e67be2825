"""What formats and models do: accuracy, cost, faults, and the field's map."""
