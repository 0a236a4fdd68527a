// Finds a topic through nsqlookupd with nsqjs, prints the body of each message on a line of its own, and exits
// once COUNT of them are finished.
//
//     consumer.js TOPIC CHANNEL COUNT LOOKUPD_HTTP_ADDRESS...
'use strict'

const { Reader } = require('nsqjs')

const [topic, channel, count, ...lookupds] = process.argv.slice(2)
if (lookupds.length === 0) {
  console.error('usage: consumer.js TOPIC CHANNEL COUNT LOOKUPD_HTTP_ADDRESS...')
  process.exit(2)
}

let remaining = Number(count)
const reader = new Reader(topic, channel, {
  lookupdHTTPAddresses: lookupds,
  lookupdPollInterval: 1,
  maxInFlight: 10,
})
reader.on(Reader.ERROR, (error) => console.error(error))
reader.on(Reader.MESSAGE, (message) => {
  console.log(message.body.toString())
  message.finish()
  remaining -= 1
  // nsqjs sends FIN in the next tick, and a closed reader sends nothing more.
  if (remaining === 0) setImmediate(() => reader.close())
})
reader.connect()
