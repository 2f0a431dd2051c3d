package operate_test

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"a3os.app/tools/fleet/internal/operate"
)

// Whoever suspends a tenant is told that it is over when its host answers like one of no tenant; where the gateway doesn't hear of it, nothing waits
// for long, and that is said.
func TestWithdrawnIsWhatTheGatewayLeadsNobodyTo(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		answers func(n int64) int
		said    string
	}{
		{"a gateway that hears of it a moment later", func(n int64) int { return []int{200, 503, 404}[min(n, 2)] }, ""},
		{"one that does not", func(int64) int { return 503 }, "has not heard of it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int64
			s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Host != "example.com" || r.URL.Path != "/here" {
					t.Errorf("it asks for %s of %s", r.URL.Path, r.Host)
				}
				w.WriteHeader(c.answers(asked.Add(1) - 1))
			}))
			t.Cleanup(s.Close)
			f := operate.Front{URL: "https://example.com/here", Dial: s.Listener.Addr().String(),
				Roots: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))}
			if got := f.Withdrawn(t.Context()); (got == "") != (c.said == "") || !strings.Contains(got, c.said) {
				t.Errorf("it says %q, want %q", got, c.said)
			}
			if n := asked.Load(); n < 3 {
				t.Errorf("it was asked %d times", n)
			}
		})
	}
	if got := (operate.Front{}).Withdrawn(t.Context()); got != "" {
		t.Errorf("without a place to ask it says %q", got)
	}
}
