"""What all Python drivers share: a command with parameters from the command line, its result as one line of JSON."""

import json
import os
import subprocess
import sys
import traceback

MODEL = "deepseek-v4-flash"


def run_tool(name, arguments):
    """The tools of the tests, really run."""
    if name == "shell":
        return subprocess.run(["sh", "-c", arguments["command"]], capture_output=True, text=True, check=True).stdout
    if name == "count_files":
        return json.dumps({"count": len(os.listdir(arguments["path"]))})
    raise ValueError(f"no tool {name}")


def usage(input, output, cached):
    return {"input": input, "output": output, "cached": cached}


def describe(error):
    """An error as the client's user sees it."""
    return {
        "kind": [kind.__name__ for kind in type(error).__mro__],
        "status": getattr(error, "status_code", None),
        "code": getattr(error, "code", None),
        "message": str(error),
    }


def main(driver):
    order = json.loads(sys.argv[1])
    try:
        result = getattr(driver, order.pop("command"))(**order)
    except Exception as error:
        traceback.print_exc()
        result = {"error": describe(error)}
    print(json.dumps(result), flush=True)
    # Connections that the driver leaves open stay open until the test has looked.
    sys.stdin.read()
