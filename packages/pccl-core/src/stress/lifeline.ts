/** Loaded before the program of a child that doesn't know its parent: ends the child when the parent is gone. */
process.on("disconnect", () => process.exit(1));
// It may be gone already: that was told while this module was loaded.
if (!process.connected) process.emit("disconnect");
// Nothing else comes on the channel of a program that doesn't know its parent, so it is no reason to live on.
process.channel?.unref();
