/** Which version of Proxmox VE's API this speaks, and which build of ours speaks it. */
import { createHash } from 'node:crypto'
import { productName, productVersion } from '#base/product.ts'

/** Clients compare this with the versions they know: see the gates in their sources before changing it. */
export const apiVersion = '9.2.3'
export const apiRelease = '9.2'
/** Names the build, as PVE's commit id does: hexadecimal, 8 to 64 digits. */
export const buildId = createHash('sha256').update(`${productName} ${productVersion}`).digest('hex').slice(0, 16)
