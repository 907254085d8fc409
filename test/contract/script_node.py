"""What both scripts begin with: one JSON object on standard input, a log-in by proxmoxer, and a wait for tasks."""
import json
import sys
import time

from proxmoxer import ProxmoxAPI

facts = json.load(sys.stdin)
login = {key: facts[key] for key in ("user", "password", "token_name", "token_value") if key in facts}
proxmox = ProxmoxAPI(facts["host"], port=facts["port"], verify_ssl=False, **login)
node = proxmox.nodes(facts["node"])


def done(upid):
    deadline = time.time() + 240
    while time.time() < deadline:
        status = node.tasks(upid).status.get()
        if status["status"] == "stopped":
            if status["exitstatus"] != "OK":
                raise RuntimeError(status["exitstatus"] + "\n" + json.dumps(node.tasks(upid).log.get(limit=0)))
            return
        time.sleep(0.05)
    raise RuntimeError("task did not end: " + upid)
