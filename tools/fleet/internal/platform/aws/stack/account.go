package stack

import (
	"errors"
	"fmt"

	"github.com/awslabs/goformation/v7/cloudformation/ec2"

	"a3os.app/deploy/blueprint"
)

// Account renders what an account that one tenant has to itself needs before the tenant's stack is deployed there: the ground that the stack
// stands on, the bucket for its template, the boundary, and the provisioner's role, which the plane's provisioner takes. The tenant's stack is
// the same as in the plane's account. No administrator of one tenant's account can do anything in another's.
func Account(in Input) (*Template, error) {
	if in.Place.Hub == "" {
		return nil, errors.New("an account of a tenant's own is rendered for a plane's account, which provisions it: name that")
	}
	if err := in.check(); err != nil {
		return nil, err
	}
	s := bare(in)
	s.guest = in.Set.Tenant.String()
	s.Description = fmt.Sprintf("Account of tenant %s on plane %s", s.guest, s.place.Plane)
	s.foundation()
	s.ground()
	s.topic()
	s.linked(in.Set.Blueprint)
	return s.Template, nil
}

// Ground renders what tenants of tier `database`, and the plane's own set, stand on where nobody is served: the plane's stack without a database
// server, a load balancer, and alarms. It is what the platform is tried on in an account, at little cost. What comes first of it is as of the plane's.
func Ground(in Input) (*Template, error) {
	if err := errors.Join(in.ofThePlane(), in.check()); err != nil {
		return nil, err
	}
	s := newSet(in)
	s.Description = "What stacks are tried on, on plane " + s.place.Plane
	s.foundation()
	if in.First {
		return s.Template, nil
	}
	s.ground()
	for id, description := range map[string]string{balancerID: "Where a load balancer would come from", clientsID: "Who would reach a database"} {
		s.add(id, &ec2.SecurityGroup{GroupDescription: description, VpcId: new(s.vpc()), Tags: s.tags(), SecurityGroupEgress: nowhere()})
	}
	s.exports(clientsID, s.own(clientsID))
	// Nobody is subscribed to it: where it is tried nobody is to be woken up.
	s.topic()
	s.doors()
	s.network()
	s.lasting()
	s.copyStore()
	s.exportsLasting()
	return s.Template, nil
}

// bare is a set without components: those are the tenant's stack's.
func bare(in Input) *set {
	in.Set.Blueprint = &blueprint.Blueprint{Name: in.Set.Blueprint.Name, Scope: blueprint.ScopePlane, Artefact: in.Set.Blueprint.Artefact}
	return newSet(in)
}

// foundation is what comes first in an account: small enough for a call, with the bucket that what is larger is read from.
func (s *set) foundation() {
	s.operators()
	s.key()
	s.templates()
}
