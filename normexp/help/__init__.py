"""What a person at a command line is told: which commands there are (``commands``), what each key
means (``key_help``), and what may stand at the cursor (``completion``).
"""
