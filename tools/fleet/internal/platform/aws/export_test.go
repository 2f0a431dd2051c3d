package aws

// Emulate has drift be looked for by templates as an emulator carried them out.
func (p *Platform) Emulate(template func([]byte) ([]byte, error)) { p.emulated = template }
