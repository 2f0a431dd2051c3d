package queue_test

import (
	"testing"

	"a3os.app/libs/id"
	"a3os.app/libs/queue/queuetest"
)

func BenchmarkVerify(b *testing.B) {
	p := queuetest.NewParties(b, id.NewTenant(), "dev")
	m := p.Message(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Verifier.Verify(m.Envelope, m.Payload); err != nil {
			b.Fatal(err)
		}
	}
}
