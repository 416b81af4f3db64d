// Checked by tsc alone: what compiles, and what must not.
import { Attached, Client, Context, Refused, Signal, SupervisorGone, Worker, childStdio, connect, worker } from 'workhall';

const counter = new Worker(0)
  .method('add', (context, amount: number) => (context.state += amount))
  .method('total', (context: Context<number>) => context.state, { takes: 0 })
  .method('range', () => undefined, { takes: [0, 2] })
  .onError((error, context) => console.error(context.method, error));
// @ts-expect-error: a method is a function
counter.method('wrong', 5);
void new Worker().method('none', () => {});
void counter.run({ exit: false });
void worker({
  state: { seen: [] as string[] },
  methods: {
    async note(context, text: string, done?: Signal) {
      context.state.seen.push(text);
      if (context.sender) await context.reply('noted', [text, 5n, new Uint8Array(2)]);
      await done?.trigger({ length: text.length });
      return { at: new Date(), signal: done };
    },
  },
});

async function caller(): Promise<number> {
  const client: Client = await connect({ timeout: 2.5 });
  const receipt = await client.call('counter', 'add', [5], { expires: 30 });
  if (receipt.ignored) return 0;
  const { message } = receipt;
  await client.cancel(message);
  const signal = await client.newSignal({ description: 'd', keep: 0.5 });
  await client.call(7, 'note', [{ nested: [signal] }]);
  if (await signal.wait(1.5)) console.log(signal.values?.length);
  // @ts-expect-error: arguments are one array
  await client.call('counter', 'add', 5);
  // @ts-expect-error: functions cannot be sent
  await client.call('counter', 'add', [() => 5]);
  try {
    return await client.callAndWait<number>('counter', 'total');
  } catch (error) {
    if (error instanceof Refused) return error.reason === 'no_class' ? 1 : 2;
    if (error instanceof SupervisorGone) return error.unanswered.length;
    throw error;
  } finally {
    await client.close();
  }
}
async function attached(): Promise<Attached> {
  const here = await counter.attach('here', { socket: '/tmp/s' });
  const how: 'left' | 'gone' = await here.leave({ drain: true });
  console.log(how, childStdio(['ignore', 'pipe', 'inherit']));
  return here;
}
void caller, attached;
