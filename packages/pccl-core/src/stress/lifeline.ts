/** Loaded before the program of a child that doesn't know its parent: ends the child when the parent is gone. */
process.on("disconnect", () => process.exit(1));
// Nothing else comes on the channel, so it is no reason to live on.
process.channel?.unref();
