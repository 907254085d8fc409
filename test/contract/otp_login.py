"""Logs in with Debian's proxmoxer: a password and a one-time password. Prints who it is, or the refusal."""

import json
import sys

from proxmoxer import ProxmoxAPI
from proxmoxer.backends.https import AuthenticationError

facts = json.load(sys.stdin)
try:
    proxmox = ProxmoxAPI(
        facts["host"], port=facts["port"], user=facts["user"], password=facts["password"], otp=facts["otp"], verify_ssl=False
    )
    print(json.dumps({"version": proxmox.version.get()["version"]}))
except AuthenticationError as error:
    print(json.dumps({"refused": str(error)[:30]}))
