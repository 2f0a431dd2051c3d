package snapshot

// Encode lets tests sign what Sign refuses.
var Encode = encode
