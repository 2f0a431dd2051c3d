package stack_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// template is one as CloudFormation reads it.
type template struct {
	Parameters map[string]any
	Outputs    map[string]struct{ Export struct{ Name string } }
	Resources  map[string]struct {
		Type       string
		Properties map[string]any
	}
}

func (x template) of(kind string) map[string]map[string]any {
	out := map[string]map[string]any{}
	for id, r := range x.Resources {
		if r.Type == kind {
			out[id] = r.Properties
		}
	}
	return out
}

// Each component that has routes is reached from the plane at the address that the registry is told: the name leads to the endpoint, the endpoint
// lets the gateway in at that port, the load balancer listens there and sends to the port that the component's tasks listen on, which register there.
func TestGatewayReachesEachRouteOfASetInItsOwnAccount(t *testing.T) {
	tenant := id.NewTenant()
	texts := rendered(t, tenant)
	var account, set, link template
	if err := errors.Join(json.Unmarshal(texts["account"], &account), json.Unmarshal(texts["of-account"], &set), json.Unmarshal(texts["link"], &link)); err != nil {
		t.Fatal(err)
	}
	b, seen := tenantSet(t, tenant, dedicated).Blueprint, map[string]bool{}
	for _, c := range b.Components {
		address := stack.Place{Plane: "dev", Hub: place.Account}.Address(b, tenant.String(), c, "api")
		name, port, _ := strings.Cut(address, ":")
		if seen[port] {
			t.Errorf("%s and another component are both at port %s", c.Name, port)
		}
		seen[port] = true
		routed := len(c.Routes) > 0
		leads := slices.ContainsFunc(slices.Collect(maps.Values(link.of("AWS::Route53::RecordSet"))), func(r map[string]any) bool { return r["Name"] == name && r["AliasTarget"] != nil })
		lets := strings.Contains(fmt.Sprint(link.Resources["SetEnd"].Properties["SecurityGroupIngress"]), "FromPort:"+port)
		targets := ""
		for _, l := range account.of("AWS::ElasticLoadBalancingV2::Listener") {
			if fmt.Sprint(l["Port"]) == port {
				targets = fmt.Sprint(l["DefaultActions"].([]any)[0].(map[string]any)["TargetGroupArn"].(map[string]any)["Ref"])
			}
		}
		if leads != routed || lets != routed || (targets != "") != routed {
			t.Errorf("%s has routes: %t; a name leads to it: %t, the endpoint lets in: %t, the load balancer sends to %q", c.Name, routed, leads, lets, targets)
		}
		if !routed {
			continue
		}
		registered := fmt.Sprint(set.Resources[strings.TrimSuffix(targets, "Targets")].Properties["LoadBalancers"])
		if !strings.Contains(registered, account.Outputs[targets].Export.Name) || !strings.Contains(registered, "ContainerPort:"+port) {
			t.Errorf("tasks of %s register at %s", c.Name, registered)
		}
		if env := fmt.Sprint(set.Resources[targets[:len(targets)-len("Targets")]+"Task"].Properties["ContainerDefinitions"]); !strings.Contains(env, "0.0.0.0:"+port) {
			t.Errorf("tasks of %s don't listen on %s", c.Name, port)
		}
	}
}

// The way to the registry is there where accounts are named, and leads by the name that sets are told; where none is, nothing is paid for it.
func TestRegistryIsOfferedToNamedAccountsAlone(t *testing.T) {
	texts := rendered(t, id.NewTenant())
	for name, want := range map[string]int{"plane": 0, "plane-joined": 1, "account": 1, "link": 0} {
		var read template
		if err := json.Unmarshal(texts[name], &read); err != nil {
			t.Fatal(err)
		}
		if n := len(read.of("AWS::EC2::VPCEndpointService")); n != want {
			t.Errorf("%s offers %d services", name, n)
		}
	}
	var control, account template
	if err := errors.Join(json.Unmarshal(texts["control-joined"], &control), json.Unmarshal(texts["account"], &account)); err != nil {
		t.Fatal(err)
	}
	if behind := fmt.Sprint(control.Resources["Registry"].Properties["LoadBalancers"]); !strings.Contains(behind, "RegistryTargets") {
		t.Errorf("the registry's tasks register at %s", behind)
	}
	if strings.Contains(string(texts["control"]), "RegistryTargets") {
		t.Error("a plane that offers its registry to nobody registers its tasks all the same")
	}
	told, leads := `registry.plane.a3-dev.internal`, false
	for _, r := range account.of("AWS::Route53::RecordSet") {
		leads = leads || r["Name"] == told
	}
	if !leads || !strings.Contains(string(texts["of-account"]), told+":7443") {
		t.Errorf("sets are told another name than %s, or it leads nowhere", told)
	}
}

func TestWhatLinksNothingIsRefused(t *testing.T) {
	in := input(t, tenantSet(t, id.NewTenant(), dedicated))
	if _, err := stack.Link(in); err == nil || !strings.Contains(err.Error(), "name both accounts") {
		t.Errorf("a link to a tenant in the plane's account: %v", err)
	}
	for _, accounts := range [][]string{{"12"}, {place.Account}, {ownAccount, ownAccount}, {"*"}} {
		in := input(t, planeSet(t))
		in.Accounts = accounts
		if _, err := stack.Plane(in); err == nil || !strings.Contains(err.Error(), "an account of a tenant's own") {
			t.Errorf("a registry for %q: %v", accounts, err)
		}
	}
}
