package command_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"

	"a3os.app/tools/fleet/internal/command"
)

// Whoever proves an account is not killed for what nobody reads any more, as where ctrl-C ended tee as well: what it made would be left. It stops by itself.
func TestAcceptanceOutlivesWhoReadsIt(t *testing.T) {
	if os.Getenv("A3_TEST_ACCEPTANCE") != "" {
		os.Exit(command.Run(t.Context(), []string{"aws", "acceptance", "--region", "eu-central-1", "--administrator", "arn:aws:iam::123456789012:role/administrator", "--prefix-list", "pl-1", "--yes", "123456789012"}, os.Environ(), os.Stdout, os.Stderr))
	}
	var asked []string
	sts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.FormValue("Action"))
		w.Header().Set("Content-Type", "text/xml")
		_, _ = fmt.Fprint(w, `<GetCallerIdentityResponse><GetCallerIdentityResult><Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`)
	}))
	defer sts.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	reads, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = reads.Close()
	defer out.Close()
	var errOut bytes.Buffer
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestAcceptanceOutlivesWhoReadsIt$")
	cmd.Env = append(os.Environ(), "A3_TEST_ACCEPTANCE=1", "AWS_ENDPOINT_URL="+sts.URL, "AWS_ACCESS_KEY_ID=ASIAEXAMPLE", "AWS_SECRET_ACCESS_KEY=secret", "AWS_SESSION_TOKEN=token", "AWS_EC2_METADATA_DISABLED=true")
	cmd.Stdout, cmd.Stderr = out, &errOut
	err = cmd.Run()
	if ended, is := errors.AsType[*exec.ExitError](err); !is || ended.ExitCode() != 1 || !strings.Contains(errOut.String(), "nobody reads what it says") {
		t.Errorf("it ends with %v: %s", err, &errOut)
	}
	if len(asked) != 1 {
		t.Errorf("it asked AWS for %q", asked)
	}
}
