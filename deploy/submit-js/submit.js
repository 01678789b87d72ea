// Starts COUNT orders over AMQP and ships them; prints the ids of the instances. Knows no LiteFlow code.
//   node submit.js amqp://guest:guest@localhost:5672/ 20
const amqp = require('amqplib');

async function main(url, count) {
  const connection = await amqp.connect(url);
  const channel = await connection.createConfirmChannel();
  const replies = (await channel.assertQueue('', { exclusive: true })).queue;
  let answered = 0;
  const done = new Promise((resolve) =>
    channel.consume(replies, (message) => {
      const answer = JSON.parse(message.content);
      console.log(message.properties.correlationId, answer.id || `${answer.error}: ${answer.reason}`);
      if (++answered === count) resolve();
    }, { noAck: true }));
  for (let n = 1; n <= count; n++) {
    const orderId = `js-${n}`;
    const data = { order_id: orderId, lines: [{ sku: 'A', quantity: n }, { sku: 'B', quantity: 1 }] };
    const start = { workflow: 'order', data, reference: orderId };
    const properties = {
      contentType: 'application/json', persistent: true, messageId: `start-${orderId}`,
      replyTo: replies, correlationId: orderId,
    };
    channel.publish('liteflow', 'workflow.start', Buffer.from(JSON.stringify(start)), properties);
    const shipped = { name: 'shipped', key: orderId, data: { tracking: `T-${orderId}` } };
    channel.publish('liteflow', 'event.publish', Buffer.from(JSON.stringify(shipped)),
      { contentType: 'application/json', persistent: true, messageId: `shipped-${orderId}` });
  }
  await channel.waitForConfirms();
  await done;
  await connection.close();
}

main(process.argv[2], Number(process.argv[3] || 1)).catch((error) => { console.error(error); process.exit(1); });
