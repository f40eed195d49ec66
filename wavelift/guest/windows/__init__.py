"""Windows guests (7 and 2008 R2 to 11 and 2025): registry hives and driver files, edited while Windows is off."""
