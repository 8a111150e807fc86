"""Turns the output of `make -Bn` into compile_commands.json."""
import json
import os
import re
import sys

commands = []
for line in sys.stdin:
    found = re.search(r"\s-c -o (\S+) (\S+\.c)\s*$", line)
    if found:
        commands.append({
            "directory": os.getcwd(),
            "command": line.strip(),
            "file": found.group(2),
            "output": found.group(1),
        })
json.dump(commands, sys.stdout, indent=1)
sys.stdout.write("\n")
