/** Sizes and bounds of the `vma` format; see docs/formats/vma.md. */
import { KiB, MiB, TiB } from '#base/bytes.ts'

export const blockBytes = 4 * KiB
export const blocksPerCluster = 16
export const clusterBytes = blockBytes * blocksPerCluster
export const clustersPerExtent = 59
export const extentHeaderBytes = 512

/** Tables of a fixed size; what they point to follows. */
export const fixedHeaderBytes = 12_288
/** Configurations are of some KiB; no honest header comes near. */
export const headerMaximumBytes = 4 * MiB
/** Of all devices together: as much as one disk may have here. One bit is kept for each of its clusters. */
export const devicesMaximumBytes = 64 * TiB

/** The stream that holds a guest's memory, where somebody saved it. */
export const memoryDevice = 'vmstate'
