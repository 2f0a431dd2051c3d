package stack

// TenantNamed renders a stack for whatever name, so that tests can have one name begin another, which no two ids do.
func TenantNamed(in Input, name string) (*Template, error) { return tenant(in, name) }
