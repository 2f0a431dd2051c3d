package aws_test

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"

	"a3os.app/tools/fleet/internal/isolation"
)

// proven has fleet isolation verify try the tenants at each other: at AWS, tasks with each role of each set ask every door of both.
func (p *plane) proven() {
	p.t.Helper()
	cmd := p.command("-o", "json", "isolation", "verify")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var r isolation.Report
	if jerr := json.Unmarshal(out, &r); jerr != nil {
		p.t.Fatalf("isolation verify: %v: %s: %s", err, out, stderr.String())
	}
	p.t.Logf("%s: %+v", r.Verdict(), r.Walls)
	const most = 12
	for i, x := range r.Failures() {
		if i < most {
			p.t.Errorf("%s: %s at %s: %s: %s (control %s: %s)", x.Outcome, x.From, x.At, x.Attempt, x.Answer, x.Control, x.ControlAnswer)
		}
	}
	at := map[string]int{}
	for _, w := range r.Walls {
		at[w.Wall] = w.Refused
	}
	for _, wall := range []string{"objects: S3", "messages: SQS", "secrets: Secrets Manager", "encryption: KMS", "logs: CloudWatch", "roles: STS"} {
		if at[wall] == 0 {
			p.t.Errorf("nothing was tried at the wall %s", wall)
		}
	}
	tried := 0
	for _, refused := range at {
		tried += refused
	}
	p.t.Attr("row", fmt.Sprint("O40 ", tried))
	if left := run(p.t, "docker", "ps", "--format", "{{.Names}}"); strings.Contains(left, "one-off") {
		p.t.Errorf("a task that asked runs still: %s", left)
	}
}

// letInAgain has an operator let a tenant's admin in again, and nobody who is none.
func (p *plane) letInAgain(slug string) {
	p.t.Helper()
	out, err := p.command("-o", "json", "tenant", "recover-admin", slug, "--reason", "the admin lost every device").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "code") {
		p.t.Errorf("recover-admin: %v: %s", err, out)
	}
	out, err = p.command("tenant", "recover-admin", slug, "--admin", "nobody@example.com", "--reason", "somebody who is no admin").CombinedOutput()
	if _, refused := err.(*exec.ExitError); !refused || !strings.Contains(string(out), "nobody@example.com was not let in") { //nolint:errorlint // it is the command's own
		p.t.Errorf("somebody who is no admin: %v: %s", err, out)
	}
}
