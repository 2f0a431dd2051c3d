package unix_test

import (
	"testing"

	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/services/discoveryworker/internal/connector"
	"a3os.app/services/discoveryworker/internal/connector/connectortest"
	"a3os.app/services/discoveryworker/internal/connector/unix"
)

func source() connector.Source {
	return connector.Source{Name: "machine", Settings: &integrationsv1.Settings{
		Connector: &integrationsv1.Settings_Unix{Unix: &integrationsv1.UnixSettings{HostName: "box"}},
	}}
}

func TestThisMachineIsReadLikeEveryConnectorReads(t *testing.T) {
	connectortest.Test(t, unix.New("/"), source())
}

func TestDump(t *testing.T) {
	r := connectortest.ReadAll(t, unix.New("/"), source(), nil)
	for _, x := range r.Records {
		t.Log(x)
	}
	t.Log(r.Completed, r.Gaps)
}
