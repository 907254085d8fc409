/**
 * Where parts and edges of an architecture lie: lanes from guests at the top to hardware at the bottom, by the layered
 * layout of ELK, which is deterministic: the same graph gives the same picture.
 */
import elk, { type ElkExtendedEdge, type ElkNode } from 'elkjs/lib/elk.bundled.js'
import { type Architecture, type Edge, type Lane, lanes, type Part } from '#views/architecture/graph.ts'

export interface Size {
  readonly width: number
  readonly height: number
}

export interface Box extends Size {
  readonly x: number
  readonly y: number
}

export interface PlacedEdge extends Edge {
  readonly points: readonly { readonly x: number; readonly y: number }[]
}

export interface Layout extends Size {
  readonly boxes: ReadonlyMap<string, Box>
  readonly edges: readonly PlacedEdge[]
  readonly lanes: ReadonlyMap<Lane, Box>
}

/** Its types speak of a module with a default; what is loaded is that default. */
const Elk = elk as unknown as typeof elk.default

const topFirst: readonly Lane[] = lanes.toReversed()
/** Between a lane's edge and its parts; above them stands its name. */
const [lanePadding, laneTitle] = [16, 30]

const options = {
  'elk.algorithm': 'layered',
  'elk.direction': 'DOWN',
  'elk.partitioning.activate': 'true',
  'elk.edgeRouting': 'ORTHOGONAL',
  'elk.spacing.nodeNode': '28',
  'elk.spacing.edgeNode': '18',
  'elk.spacing.edgeEdge': '10',
  'elk.layered.spacing.nodeNodeBetweenLayers': '74',
  'elk.layered.spacing.edgeNodeBetweenLayers': '22',
  'elk.layered.spacing.edgeEdgeBetweenLayers': '10',
  'elk.layered.nodePlacement.strategy': 'BRANDES_KOEPF',
  'elk.layered.nodePlacement.bk.fixedAlignment': 'BALANCED',
  'elk.layered.considerModelOrder.strategy': 'NODES_AND_EDGES',
  'elk.separateConnectedComponents': 'false',
  'elk.randomSeed': '1',
  'elk.padding': '[top=44,left=28,bottom=28,right=28]',
}

/** @param sizeOf room a part's text needs */
export async function layOut({ parts, edges }: Architecture, sizeOf: (part: Part) => Size): Promise<Layout> {
  const ids = new Set(parts.map(({ id }) => id))
  const root: ElkNode = {
    id: 'root',
    layoutOptions: options,
    children: parts.map((part) => ({
      id: part.id,
      ...sizeOf(part),
      layoutOptions: { 'elk.partitioning.partition': String(topFirst.indexOf(part.lane)) },
    })),
    edges: edges
      .filter(({ from, to }) => ids.has(from) && ids.has(to))
      .map(({ from, to }, at): ElkExtendedEdge => ({ id: String(at), sources: [from], targets: [to] })),
  }
  const placed = await new Elk().layout(root)
  const drawn = edges.filter(({ from, to }) => ids.has(from) && ids.has(to))
  const boxes = new Map(
    (placed.children ?? []).map(({ id, x = 0, y = 0, width = 0, height = 0 }): [string, Box] => [
      id,
      { x, y, width, height },
    ]),
  )
  const [width, height] = [Math.ceil(placed.width ?? 0), Math.ceil(placed.height ?? 0)]
  return {
    width,
    height,
    boxes,
    edges: (placed.edges ?? []).flatMap((one) => {
      const edge = drawn[Number(one.id)]
      return edge ? [{ ...edge, points: pointsOf(one) }] : []
    }),
    lanes: lanesOf(parts, boxes, width),
  }
}

function pointsOf({ sections = [] }: ElkExtendedEdge) {
  return sections.flatMap(({ startPoint, bendPoints = [], endPoint }) => [startPoint, ...bendPoints, endPoint])
}

/** Bands over the whole width; where two meet, the space between them is halved. */
function lanesOf(parts: readonly Part[], boxes: ReadonlyMap<string, Box>, width: number): ReadonlyMap<Lane, Box> {
  const bands: { lane: Lane; top: number; bottom: number }[] = []
  for (const lane of topFirst) {
    const own = parts.flatMap((part) => (part.lane === lane ? (boxes.get(part.id) ?? []) : []))
    if (own.length === 0) continue
    const top = Math.min(...own.map(({ y }) => y)) - laneTitle
    const bottom = Math.max(...own.map(({ y, height }) => y + height)) + lanePadding
    bands.push({ lane, top, bottom })
  }
  return new Map(
    bands.map(({ lane, top, bottom }) => [lane, { x: 8, y: top, width: width - 16, height: bottom - top }]),
  )
}
