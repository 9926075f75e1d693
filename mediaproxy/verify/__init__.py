"""`flattone verify`: recordings, audit logs and scan reports, as they were written?"""
