package discovery

import (
	"strings"
	"testing"

	"a3os.app/libs/config"
)

// TestRoleNamesEverythingItLacks also shows that the configuration itself can be read.
func TestRoleNamesEverythingItLacks(t *testing.T) {
	_, err := config.Load[Config](service, []string{"A3_PEERS=iam=127.0.0.1:1,audit=127.0.0.1:2"})
	if err == nil {
		t.Fatal("an empty configuration was taken")
	}
	for _, want := range []string{"A3_TENANT", "A3_DATABASE_URL", "A3_TENANT_DATABASE_URL", "A3_ENVELOPE_KEY", "A3_PAGE_KEY", "A3_CERT_DIR"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "A3_PEERS") {
		t.Errorf("the error names what was given: %v", err)
	}
}
