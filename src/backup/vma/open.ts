/**
 * Opens an archive file, compressed or not. What the compression checks is checked too: gzip and lzo have
 * checksums of everything, zstd where its writer put them in.
 */
import type { FileHandle } from 'node:fs/promises'
import { pipeline } from 'node:stream'
import { createGunzip, createZstdDecompress } from 'node:zlib'
import { KiB } from '#base/bytes.ts'
import { Fault, invalid, messageOf } from '#base/fault.ts'
import { codeOf } from '#host/files.ts'
import { filtered } from '#host/programs/filter.ts'
import { damaged } from './header.ts'
import { VmaReader } from './reader.ts'

export type Compression = 'none' | 'gzip' | 'lzo' | 'zstd'

const pieceBytes = 256 * KiB

/** By the ending of the file's name, as those who make archives name them. @throws Fault `invalid` */
export function compressionOf(fileName: string): Compression {
  const ending = /\.vma(?:\.(\w+))?$/.exec(fileName)
  switch (ending === null ? null : (ending[1] ?? '')) {
    case '':
      return 'none'
    case 'gz':
      return 'gzip'
    case 'lzo':
      return 'lzo'
    case 'zst':
      return 'zstd'
    default:
      throw invalid({
        archive: `'${fileName.slice(-255)}' is no archive of a virtual machine: it must end in .vma, .vma.gz, .vma.lzo or .vma.zst`,
      })
  }
}

/**
 * The caller disposes of the reader, and closes the file after it.
 * @throws Fault `invalid` when it is no such archive, `damaged`; `missing` without `lzop`
 */
export async function openVma(file: FileHandle, compression: Compression): Promise<VmaReader> {
  return VmaReader.open(plain(file, compression))
}

async function* plain(file: FileHandle, compression: Compression): AsyncGenerator<Uint8Array> {
  try {
    if (compression === 'lzo') yield* filtered(['lzop', '--decompress', '--stdout'], file)
    else yield* unpacked(file, compression)
  } catch (cause) {
    if (cause instanceof Fault && cause.kind !== 'damaged') throw cause
    if (!(cause instanceof Fault) && !/^(Z_|ZSTD)/.test(codeOf(cause) ?? '')) throw cause
    throw damaged(`it cannot be unpacked (${messageOf(cause)})`)
  }
}

function unpacked(file: FileHandle, compression: Exclude<Compression, 'lzo'>): AsyncIterable<Buffer> {
  const source = file.createReadStream({ start: 0, autoClose: false, highWaterMark: pieceBytes })
  if (compression === 'none') return source
  const decoder = compression === 'gzip' ? createGunzip : createZstdDecompress
  // An error of the file reaches whoever reads the decoder; there is nothing to do about it here.
  return pipeline(source, decoder({ chunkSize: pieceBytes }), () => {})
}
