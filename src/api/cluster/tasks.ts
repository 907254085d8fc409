/** The newest tasks of all nodes, for an overview. */
import { array } from '#base/schema/schema.ts'
import { endpoint } from '#api/call.ts'
import { taskItem } from '#api/nodes/tasks.ts'
import { anyone } from '#rest/endpoint.ts'

/** As many as an overview shows; the lists of the nodes have the rest. */
const newest = 100

const listClusterTasks = endpoint({
  method: 'GET',
  path: '/cluster/tasks',
  description: 'The newest tasks of all nodes, running and finished.',
  params: {},
  permission: anyone,
  returns: array(taskItem),
  handle: async (_, call) => {
    const { tasks } = await call.services.tasks.list({
      source: 'all',
      limit: newest,
      visibleTo: (await call.may(`/nodes/${call.services.settings.node}`, 'Sys.Audit')) ? undefined : call.who.authId,
    })
    return tasks
  },
})

export const clusterTaskEndpoints = [listClusterTasks]
