process.on("message", (text) => {
  process.send([text, process.env.BORN ?? null], () => process.disconnect());
});
