package command

import (
	"bytes"
	"context"
	"testing"

	"a3os.app/tools/fleet/internal/plane"
)

// A plane that ben brought up goes on as before when ben is removed: what it does by itself, it doesn't do as ben.
func TestDaemonWorksAsNobodyWhoMayBeRemoved(t *testing.T) {
	for _, who := range []string{"A3_OPERATOR=ben", "A3_OPERATOR_DIR=/home/ben/key"} {
		a := &app{environ: []string{who, "A3_LOG_LEVEL=warn"}, out: &bytes.Buffer{}, errOut: &bytes.Buffer{}, format: "table"}
		ran := false
		c := a.daemon("supervise", "", func(_ context.Context, p *plane.Plane) error {
			ran = true
			if s := p.Settings; s.Operator != "" || s.OperatorDir != "" || s.LogLevel != "warn" {
				t.Errorf("with %s it works with %+v", who, s)
			}
			return nil
		})
		c.SetArgs([]string{"--home", t.TempDir()})
		if err := c.ExecuteContext(t.Context()); err != nil || !ran {
			t.Errorf("with %s: ran %t, %v", who, ran, err)
		}
	}
}
