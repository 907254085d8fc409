/** Whose processor a model of QEMU's pretends to be. */
const amd = /^(?:athlon|phenom|Opteron|EPYC)/
const hygon = /^Dhyana/
const zhaoxin = /^YongFeng/
/** Models that are what the node is, or nobody's. */
const nobody = /^(?:host|max|base|qemu|kvm|x86-64-v|cortex|neoverse|a64fx)/

/** @returns the vendor's CPUID text, or `default` */
export function vendorOf(model: string): string {
  if (nobody.test(model)) return 'default'
  if (amd.test(model)) return 'AuthenticAMD'
  if (hygon.test(model)) return 'HygonGenuine'
  return zhaoxin.test(model) ? 'CentaurHauls' : 'GenuineIntel'
}
