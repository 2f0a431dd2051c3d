package stack

// Control renders the plane's own set at a release: the tasks of its components, and the services that keep them. All that lasts longer than a
// release is of the stack that Plane renders, so that fleet changes this one as the provisioner, who may change nothing there.
func Control(in Input) (*Template, error) {
	if err := in.ofThePlane(); err != nil {
		return nil, err
	}
	if err := in.check(); err != nil {
		return nil, err
	}
	s := newSet(in)
	s.standing = true
	s.Description = "Set " + s.blueprint.Name + " of plane " + s.place.Plane
	if err := s.tasks(); err != nil {
		return nil, err
	}
	return s.Template, nil
}

// exportsLasting are what the stack of a release names of what lasts: where tasks stand in the network, the names that they are found by, what they
// are given, and what the load balancer sends to.
func (s *set) exportsLasting() {
	for _, c := range s.blueprint.Components {
		s.exports(groupID(c.Name), ref(groupID(c.Name)))
		s.exports(nameID(c.Name), attribute(nameID(c.Name), "Arn"))
		s.exports(secretID(c.Name), ref(secretID(c.Name)))
	}
	if s.migrates() {
		s.exports(secretID(migration), ref(secretID(migration)))
	}
	s.exports(peersID, ref(peersID))
	if _, fronted := s.Resources[targetsID]; fronted {
		s.exports(targetsID, ref(targetsID))
	}
}

// held is something that the set has whatever release it runs.
func (s *set) held(id string) string {
	if s.standing {
		return s.place.imported(id)
	}
	return ref(id)
}

// heldARN is its ARN, where that isn't what a reference to it is.
func (s *set) heldARN(id string) string {
	if s.standing {
		return s.place.imported(id)
	}
	return attribute(id, "Arn")
}

// roleARN is a role of the set's: one of another stack is known by its name.
func (s *set) roleARN(id, arn string) string {
	if s.standing {
		return arn
	}
	return attribute(id, "Arn")
}
