/** Exit code 0 if a GPU adapter answers, 3 if none does. Run in its own process: the driver is chosen only once. */
const adapter = await navigator.gpu?.requestAdapter();
Deno.exit(adapter ? 0 : 3);
