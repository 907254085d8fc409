"""A VM's life through Debian's python3-proxmoxer, as an ordinary script would write it.

Reads one JSON object on standard input: host, port, node, image, bridge and either user and password or
user, token_name and token_value. Prints one JSON object. Any surprise is an exception and exit code 1.
"""
import json
import time

from script_node import done, facts, node, proxmox

vmid = facts["vmid"]


def agent_answers(number):
    deadline = time.time() + 120
    while time.time() < deadline:
        try:
            return node.qemu(number).agent.ping.post()
        except Exception:
            time.sleep(0.2)
    raise RuntimeError("no agent")


def run(number, *command):
    pid = node.qemu(number).agent("exec").post(command=list(command))["pid"]
    while True:
        status = node.qemu(number).agent("exec-status").get(pid=pid)
        if status["exited"] == 1:
            assert status["exitcode"] == 0, status
            return status.get("out-data", "").strip()
        time.sleep(0.05)


seen = {"version": proxmox.version.get()["version"]}
done(node.qemu.post(
    vmid=vmid, name="byproxmoxer", memory=192, agent=1, serial0="socket", scsihw="virtio-scsi-pci",
    scsi0="local:0,import-from=" + facts["image"], net0="virtio,bridge=" + facts["bridge"], boot="order=scsi0",
))
assert any(vm["vmid"] == vmid for vm in proxmox.cluster.resources.get(type="vm"))
done(node.qemu(vmid).status.start.post())
agent_answers(vmid)
seen["status"] = node.qemu(vmid).status.current.get()["qmpstatus"]
run(vmid, "/bin/sh", "-c", "echo before > /www/known; sync")
done(node.vzdump.post(vmid=vmid, storage="local", mode="snapshot"))
run(vmid, "/bin/sh", "-c", "echo after > /www/known; sync")
archive = [one for one in node.storage("local").content.get(content="backup") if one["vmid"] == vmid][0]["volid"]
done(node.qemu(vmid).status.stop.post())
done(node.qemu.post(vmid=vmid + 1, archive=archive, storage="local", unique=1))
done(node.qemu(vmid + 1).status.start.post())
agent_answers(vmid + 1)
seen["restored"] = run(vmid + 1, "/bin/cat", "/www/known")
done(node.qemu(vmid + 1).status.stop.post())
done(node.qemu(vmid + 1).delete())
done(node.qemu(vmid).delete())
done(node.storage("local").content(archive).delete())
seen["left"] = [vm["vmid"] for vm in proxmox.cluster.resources.get(type="vm")]
print(json.dumps(seen))
