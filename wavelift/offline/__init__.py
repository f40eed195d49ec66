"""What a person does with disks that travel: make them ready, plan what goes on them, check what came back."""
