package command

import "testing"

// At AWS a host is reached by its name, with a certificate of the world's: nothing listens on fleet's machine, whose authority nobody there shows.
func TestAdminIsToldTheWayThatThereIs(t *testing.T) {
	for published, want := range map[bool]string{true: "", false: " --ca-cert web/ca.pem --dial 127.0.0.1:7443"} {
		if got := way(published, " --ca-cert web/ca.pem", "127.0.0.1:7443"); got != want {
			t.Errorf("published %t: %q", published, got)
		}
	}
}
