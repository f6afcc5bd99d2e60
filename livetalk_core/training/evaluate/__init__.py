"""How well a talking model does: lips, identity, drift, borders; as figures, tables and pictures."""
