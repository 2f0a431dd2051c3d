package snapshot

// Encode lets tests sign what Sign refuses.
func Encode(payload []byte) []byte { return encode(PayloadType, payload) }

// EncodeChange lets tests sign what SignChange refuses.
func EncodeChange(payload []byte) []byte { return encode(ChangePayloadType, payload) }
