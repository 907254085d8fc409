"""A container's life through Debian's python3-proxmoxer, as an ordinary script would write it.

Reads one JSON object on standard input: host, port, node, template, bridge and either user and password or
user, token_name and token_value. Prints one JSON object. Any surprise is an exception and exit code 1.
"""
import json

from script_node import done, facts, node, proxmox

vmid = facts["vmid"]


def run(number, *command):
    answer = proxmox("hako/containers")(facts["node"])(number)("exec").post(command=list(command))
    assert answer["exitcode"] == 0, answer
    return answer["out-data"].strip()


seen = {}
assert int(proxmox.cluster.nextid.get()) > 0
done(node.lxc.post(
    vmid=vmid, ostemplate=facts["template"], hostname="byproxmoxer", memory=64, swap=0, rootfs="local:0", unprivileged=1,
    net0="name=eth0,ip=dhcp,bridge=" + facts["bridge"], tags="a;b", start=1,
))
assert any(one["vmid"] == vmid and one["type"] == "lxc" for one in proxmox.cluster.resources.get(type="vm"))
ct = node.lxc(vmid)
current = ct.status.current.get()
seen["status"] = [current["status"], current["name"], current["maxmem"], current["type"]]
seen["interfaces"] = sorted(card["name"] for card in ct.interfaces.get())
seen["inside"] = run(vmid, "/bin/hostname")
ct.config.put(memory=80, description="changed", hostname="renamed")
seen["config"] = [ct.config.get()[key] for key in ("memory", "description", "hostname")]
seen["pending"] = [one["pending"] for one in ct.pending.get() if "pending" in one]
assert "80" in str(int(run(vmid, "/bin/sh", "-c", "grep MemTotal /proc/meminfo").split()[1]) // 1024)
assert [one["name"] for one in ct.snapshot.get()] == ["current"]
done(ct.status.suspend.post())
assert ct.status.current.get()["status"] == "running"
done(ct.status.resume.post())
done(ct.status.reboot.post(timeout=30))
seen["renamed"] = run(vmid, "/bin/hostname")
run(vmid, "/bin/sh", "-c", "echo kept > /root/note; sync")
done(ct.status.shutdown.post(timeout=30, forceStop=1))
done(ct.clone.post(newid=vmid + 1, hostname="twin", full=1))
done(node.lxc(vmid + 1).status.start.post())
seen["twin"] = [run(vmid + 1, "/bin/hostname"), run(vmid + 1, "/bin/cat", "/root/note")]
assert isinstance(node.lxc(vmid + 1).rrddata.get(timeframe="hour"), list)
done(node.lxc(vmid + 1).status.stop.post())
for number in (vmid, vmid + 1):
    done(node.lxc(number).delete(purge=1))
seen["left"] = [one["vmid"] for one in proxmox.cluster.resources.get(type="vm")]
print(json.dumps(seen))
