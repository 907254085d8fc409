"""Steps on one libvirt connection, to the URI given: a JSON array of words per line in, the milliseconds the step took out."""
import json
import sys
import time

import libvirt

connection = libvirt.open(sys.argv[1])

steps = {
    "define": lambda xml: connection.defineXML(xml),
    "stats": lambda: connection.getAllDomainStats(),
    "start": lambda name: connection.lookupByName(name).create(),
    "destroy": lambda name: connection.lookupByName(name).destroy(),
}
for line in sys.stdin:
    name, *words = json.loads(line)
    began = time.perf_counter()
    steps[name](*words)
    print((time.perf_counter() - began) * 1000, flush=True)
