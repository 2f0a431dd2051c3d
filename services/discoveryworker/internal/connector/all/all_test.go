package all_test

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/services/discoveryworker/internal/connector"
	"a3os.app/services/discoveryworker/internal/connector/all"
)

// TestEveryKindOfSettingsHasAConnector walks the oneof, so that a kind added to the proto is not forgotten here.
func TestEveryKindOfSettingsHasAConnector(t *testing.T) {
	kinds := new(integrationsv1.Settings).ProtoReflect().Descriptor().Oneofs().ByName("connector").Fields()
	for i := range kinds.Len() {
		settings := new(integrationsv1.Settings)
		kind := kinds.Get(i)
		settings.ProtoReflect().Set(kind, protoreflect.ValueOfMessage(settings.ProtoReflect().NewField(kind).Message()))
		if c, err := all.For(settings, all.Machine{Allowed: true}); err != nil || c == nil {
			t.Errorf("%s: %v, %v", kind.Name(), c, err)
		}
	}
}

func TestThisMachineIsReadOnlyForTenantsThatTheConfigurationNames(t *testing.T) {
	machine := &integrationsv1.Settings{Connector: &integrationsv1.Settings_Unix{Unix: &integrationsv1.UnixSettings{}}}
	refused(t, machine, "configuration names")
}

func TestSettingsOfNoKindAreRefused(t *testing.T) {
	refused(t, nil, "name no connector")
	refused(t, new(integrationsv1.Settings), "name no connector")
}

func refused(t *testing.T, settings *integrationsv1.Settings, want string) {
	t.Helper()
	c, err := all.For(settings, all.Machine{})
	if _, permanent := errors.AsType[*connector.PermanentError](err); c != nil || !permanent || !strings.Contains(err.Error(), want) {
		t.Errorf("For answered %v, %v, want a permanent error with %q in it", c, err, want)
	}
}
